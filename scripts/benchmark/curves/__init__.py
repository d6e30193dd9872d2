"""Loss curves: what states in bfloat16 do to a training, beside float32 states of the same
seeds."""
