"""The page. Static files without a build step, which call only published endpoints."""
