"""Models of other libraries as objectives: one module for each library, imported on its own."""
