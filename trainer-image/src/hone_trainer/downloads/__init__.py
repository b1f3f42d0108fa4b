"""From a uri to files on the workspace: the Hugging Face Hub, S3-compatible stores and HTTPS servers."""
