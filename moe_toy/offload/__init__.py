"""Decoding with experts in slow memory: a store of experts, slots that cache them, and what that costs."""
