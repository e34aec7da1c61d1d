# SPDX-License-Identifier: Apache-2.0
"""The detector on an NVIDIA GPU: from pictures as decoders make them to boxes."""
