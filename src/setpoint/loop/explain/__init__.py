"""Why requests of a run were shed or late, which policies could have fired, and what the queue had been without them."""
