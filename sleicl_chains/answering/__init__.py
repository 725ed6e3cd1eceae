"""One question in, one `Answer` out: prompts, evidence, readers, and the chains made of them."""
