"""SageMaker, on this machine or on AWS: the same boto3 calls (notebook 12)."""
