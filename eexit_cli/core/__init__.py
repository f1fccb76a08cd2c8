"""What every room shares: errors, catalogs, protocols, types, seeds. Imports nothing heavy."""
