# SPDX-License-Identifier: Apache-2.0
"""The detector on an NVIDIA GPU: pictures as decoders make them to boxes, without leaving the device."""
