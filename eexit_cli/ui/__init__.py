"""The terminal: options, help, progress, tables, errors. Everything light until it is drawn."""
