/* tests/flux/adapters-common.h: a small transformer, and where adapter files are.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "transformer-common.h"

typedef struct {
  fx_backend *b;
  FluxTransformer *t;
  const FluxConfig *c;
} Fixture;

static void
set_up (Fixture *f, gconstpointer data)
{
  g_autofree char *dir = test_small_dir ();

  f->b = test_backend ();
  f->t = test_load (dir, f->b, FX_Q_NONE);
  f->c = flux_transformer_get_config (f->t);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  flux_transformer_unref (f->t);
  fx_backend_free (f->b);
}

static char *
data_path (const char *name)
{
  return g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "adapters", name, NULL);
}
