# SPDX-License-Identifier: Apache-2.0
"""`sightline bundle`: all that a box needs to be installed without a network."""
