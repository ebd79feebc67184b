"""How the eleven domains of the default corpus are made."""
