"""Model families: a file each, holding only what is different."""
