/* flux/files/safetensors-private.h: one .safetensors file, as the reader's parts see it.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#include "flux/files/safetensors.h"

G_BEGIN_DECLS

#define FLUX_SAFETENSORS_MAX_HEADER 100000000 /* the reference's limit, bytes */

/* A mapped file and what its header says. */
typedef struct {
  GMappedFile *mapping;
  goffset size;         /* the file's, and when it was changed last (ns since 1970): */
  gint64 mtime;         /* as it was before it was mapped */
  GArray *tensors;      /* FluxTensor, in the order of their offsets; owns the names */
  GHashTable *metadata; /* string -> string */
} FluxSafetensorsFile;

FluxSafetensorsFile *flux_safetensors_file_open (const char *path, GError **error);
void flux_safetensors_file_free (FluxSafetensorsFile *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxSafetensorsFile, flux_safetensors_file_free)

/* Parses the header of the file mapped at bytes [length] into self. */
gboolean flux_safetensors_parse (FluxSafetensorsFile *self, const char *path,
    const char *bytes, gsize length, GError **error);

/* Reads an index: *names and *shards run in parallel, tensor and file name. */
gboolean flux_safetensors_read_index (
    const char *path, GPtrArray **names, GPtrArray **shards, GError **error);

/* The file that path means: itself, or the one of a folder as flux_safetensors_open()
 * says.
 */
char *flux_safetensors_find (const char *path, GError **error);

/* Sizes and times of change of its files, "BYTES@NANOSECONDS BYTES@...": as long as these
 * stay, so does what is in them. g_free() it. */
char *flux_safetensors_get_stamp (FluxSafetensors *self);

/* The header of a file of these tensors (whose data is not looked at), and where in the
 * file the data of each begins: offsets [n]. path is for errors. NULL on error. */
GString *flux_safetensors_layout (const char *path, const FluxTensorSource *tensors,
    guint n, const char *const *metadata, gsize *offsets, GError **error);

/* dtypes from largest alignment to smallest, as the reference writer sorts them. */
extern const fx_dtype flux_safetensors_dtypes[FX_N_DTYPES];

G_END_DECLS
