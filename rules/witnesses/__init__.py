"""Page tables, section table and trace, compared: three witnesses of one machine."""
