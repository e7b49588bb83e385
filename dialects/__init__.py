"""The three levels of AMK's IR: `graph` (what is computed), `task` (the work in tiles), `queue` (who runs what, when)."""
