"""What buyers say of what they bought, what the shop answers, and how many found it helpful."""
