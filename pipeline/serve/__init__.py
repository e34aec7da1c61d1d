# SPDX-License-Identifier: Apache-2.0
"""`sightline serve`: many cameras for months."""
