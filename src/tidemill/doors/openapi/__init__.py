"""What the REST doors take and give, as an OpenAPI 3.1 document at `/openapi.json`; pure."""
