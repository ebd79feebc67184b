"""What makes neighbouring tokens choose similar experts, beside the balance of load; one scheme a file."""
