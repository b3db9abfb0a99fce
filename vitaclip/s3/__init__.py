"""S3-compatible object storage: AWS, MinIO, Ceph, R2, by endpoint.

``S3_ENDPOINT_URL`` names the server if it is not Amazon's, ``S3_ADDRESSING_STYLE`` where bucket
names stand in its addresses; credentials and region are AWS's own settings.
"""
