"""How good an attribution is, and what it finds: bad data, retraining, the reverse influence."""
