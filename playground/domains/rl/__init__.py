"""Policy-gradient agents on Gymnasium environments."""
