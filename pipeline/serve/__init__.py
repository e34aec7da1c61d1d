# SPDX-License-Identifier: Apache-2.0
"""Many cameras for months: settings, the service, and how it is watched."""
