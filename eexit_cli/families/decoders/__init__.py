"""What every family whose models write text has in common: each exit decodes anew."""
