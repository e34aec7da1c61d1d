# SPDX-License-Identifier: Apache-2.0
"""A look at what the default model does, on a clip of one's own or on a drawn street."""
