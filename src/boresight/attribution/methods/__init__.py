"""Attribution methods over towers, one family a file."""
