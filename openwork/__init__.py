"""Train networks whose structure is made while they learn, then really make them smaller."""
