/* tests/flux/weights-bench.h: a small file and a loader on it. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <glib/gstdio.h>
#include <string.h>

#include "flux/files/weights.h"

/* A file in the making, and a loader on what was written. */
typedef struct {
  GArray *tensors; /* FluxTensorSource */
  char *dir, *path;
  FluxSafetensors *file;
  fx_backend *backend;
  fx_arena arena;
  FluxLoader loader;
} Bench;

static inline void
bench_init (Bench *self)
{
  memset (self, 0, sizeof *self);
  self->tensors = g_array_new (FALSE, FALSE, sizeof (FluxTensorSource));
  self->dir = g_dir_make_tmp ("flux-weights-XXXXXX", NULL);
  self->path = g_build_filename (self->dir, "w.safetensors", NULL);
  self->backend = fx_cpu_new (1);
  fx_arena_init (&self->arena, self->backend, "test");
}

static inline void
bench_add (Bench *self, const char *name, fx_dtype dtype, guint n_dims, gint64 a,
    gint64 b, gconstpointer data)
{
  FluxTensorSource t = {
      .name = name, .dtype = dtype, .n_dims = n_dims, .dims = {a, b}, .data = data};

  g_array_append_val (self->tensors, t);
}

/* Writes the file and opens it; the loader may load up to 4 MiB from it. */
static inline void
bench_open (Bench *self, fx_qtype qtype)
{
  g_autoptr (GError) error = NULL;

  flux_safetensors_write (self->path, (FluxTensorSource *)self->tensors->data,
      self->tensors->len, NULL, &error);
  g_assert_no_error (error);
  g_clear_pointer (&self->file, flux_safetensors_unref);
  self->file = flux_safetensors_open (self->path, &error);
  g_assert_no_error (error);
  fx_arena_clear (&self->arena);
  g_assert_cmpint (fx_arena_reserve (&self->arena, 4 << 20), ==, FX_OK);
  self->loader = (FluxLoader){.file = self->file,
      .backend = self->backend,
      .arena = &self->arena,
      .qtype = qtype,
      .compute = FX_F32};
}

static inline void
bench_clear (Bench *self)
{
  fx_arena_clear (&self->arena);
  g_clear_pointer (&self->file, flux_safetensors_unref);
  g_array_unref (self->tensors);
  fx_backend_free (self->backend);
  g_remove (self->path);
  g_rmdir (self->dir);
  g_free (self->path);
  g_free (self->dir);
}
