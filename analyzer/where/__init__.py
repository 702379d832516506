"""Everything known of one address: how it is read, the document, its text, the command."""
