"""The formats that an audit is reported in."""
