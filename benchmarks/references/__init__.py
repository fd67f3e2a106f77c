"""Reference solutions that the zoo ships as data, and how they are made."""
