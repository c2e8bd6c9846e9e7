/* flux/transformer/run-layout.h: every buffer of a run (internal).
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/transformer/transformer-private.h"

G_BEGIN_DECLS

typedef struct {
  const char *name; /* static */
  gsize bytes;
} FluxNamed;

/* Takes all buffers of r from r->arena and notes their sizes by name in r->names. */
int flux_run_lay_out (FluxRun *r);

G_END_DECLS
