"""The commands, one file each: what they are called with and what they call. Nothing here measures or decides."""
