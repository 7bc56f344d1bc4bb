"""The REST side: queries, responses, limits, the archive, and responses that are spoiled on purpose."""
