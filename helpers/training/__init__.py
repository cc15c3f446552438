"""Training scripts: each runs alike on a laptop, under torchrun and in a SageMaker training job."""
