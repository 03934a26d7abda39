"""Whether speculation pays: acceptance and costs measured on a user's own work, and what follows from them."""
