"""Names, files and downloads of models. Never loads one."""
