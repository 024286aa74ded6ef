"""What the server says of itself: OpenAPI, the guide, its pages."""
