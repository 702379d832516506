"""The linear map of physical memory."""
