"""The subcommands of amk, one file each."""
