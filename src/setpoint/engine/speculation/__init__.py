"""Draft and verify: guesses at the next tokens, checked by the model several at a time, at no change of what comes out."""
