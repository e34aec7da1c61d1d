# SPDX-License-Identifier: Apache-2.0
"""Rules: tracks of one camera become events, by what its settings say is worth telling."""
