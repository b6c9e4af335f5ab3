"""The reward service's messages: `reward.proto` and the code generated from it (its first lines say how)."""
