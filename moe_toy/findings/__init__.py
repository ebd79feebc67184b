"""From tables to statements: claims, the recommendation, the knee, the numbers of the paper."""
