/* pipelines/pull.h: gst-flux pull. SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* words: "pull", [model|vae|text|transformer|lora|dataset], hf://...; what is not said is
 * a model, of hf://datasets/ a data set. Prints the local path; returns the exit status.
 * Ctrl-C ends it, and what has arrived is kept. */
int gst_flux_pull (char **words);
/* Prints what it does; 0. */
int gst_flux_pull_help (void);
