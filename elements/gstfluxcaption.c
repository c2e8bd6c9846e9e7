/* gstfluxcaption.c: an image's caption to its embeddings: looked up, else computed.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxcaption.h"

#include "elements/gstfluxcommon.h"
#include "flux/files/replace.h"
#include "flux/model.h"
#include "flux/text/text-encoder.h"

#define WHAT "The embedding table" /* for flux_file_check_writable() */

struct _GstFluxCaption {
  GstElement *element; /* not owned */
  GstFluxHub *hub;     /* not owned */
  gchar *location, *text_model, *device, *weights_cache;
  gchar *path; /* of text_model; NULL: it is on the Hub, and was not needed */
  fx_qtype qtype;
  gint length;
  FluxTextInfo info;
  FluxEmbeddingTable *table; /* NULL: rows only */
  GHashTable *rows;          /* key -> FluxEmbedding: computed in this run */
  GHashTable *seen;          /* key -> caption */
  gint row_length;           /* tokens of the first row that was found, 0: none yet */
  fx_dtype compute;
  fx_backend *backend;
  FluxTextEncoder *encoder;
};

static void
embedding_free (gpointer e)
{
  flux_embedding_clear (e);
  g_free (e);
}

static void
embedding_copy (FluxEmbedding *to, const FluxEmbedding *from)
{
  *to = *from;
  g_bytes_ref (to->prompt_embeds);
  g_bytes_ref (to->pooled);
}

/* Before rows are computed, not after. A table that is there may have all of them, and be
 * read-only: it is checked when a row is missing. */
static gboolean
check_location (GstFluxCaption *self, const gchar *location, GError **error)
{
  if (!g_str_has_suffix (location, ".parquet") &&
      !g_str_has_suffix (location, ".safetensors")) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "'%s' is no name for an embedding table: let it end in .parquet or "
        ".safetensors.",
        location);
    return FALSE;
  }
  self->location = g_strdup (location);
  return self->text_model == NULL || g_file_test (location, G_FILE_TEST_EXISTS) ||
         flux_file_check_writable (location, WHAT, error);
}

/* Again, when it is known what rows have to be like: nothing has been added by then. */
static gboolean
open_table (GstFluxCaption *self, GError **error)
{
  g_clear_pointer (&self->table, flux_embedding_table_free);
  self->table = flux_embedding_table_open (self->location, self->text_model != NULL,
      self->info.joint_dim, self->info.pooled_dim, error);
  return self->table != NULL;
}

static gboolean
open_remote (GstFluxCaption *self, GError **error)
{
  gchar *path = gst_flux_hub_resolve (self->hub, self->text_model, FLUX_HUB_TEXT, error);

  if (path == NULL)
    return FALSE;
  if (flux_text_read_info (path, &self->info, error) &&
      (self->location == NULL || open_table (self, error)))
    self->path = path;
  else
    g_free (path);
  return self->path != NULL;
}

GstFluxCaption *
gst_flux_caption_new (
    GstElement *element, const GstFluxCaptionSettings *settings, GError **error)
{
  GstFluxCaption *self = g_new0 (GstFluxCaption, 1);

  self->element = element;
  self->hub = settings->hub;
  self->text_model = g_strdup (settings->text_model);
  self->device = g_strdup (settings->device);
  self->weights_cache = g_strdup (settings->weights_cache);
  self->compute = settings->compute;
  self->qtype = settings->text_quantization;
  self->length = settings->max_sequence_length;
  self->rows = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, embedding_free);
  self->seen = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  if (self->text_model != NULL && !flux_hub_is_uri (self->text_model)) {
    if (!flux_text_read_info (self->text_model, &self->info, error))
      goto failed;
    self->path = g_strdup (self->text_model);
  }
  if (settings->location != NULL &&
      (!check_location (self, settings->location, error) || !open_table (self, error)))
    goto failed;
  return self;

failed:
  gst_flux_caption_free (self);
  return NULL;
}

void
gst_flux_caption_free (GstFluxCaption *self)
{
  gst_flux_caption_free_weights (self);
  g_clear_pointer (&self->table, flux_embedding_table_free);
  g_hash_table_unref (self->rows);
  g_hash_table_unref (self->seen);
  g_free (self->device);
  g_free (self->weights_cache);
  g_free (self->text_model);
  g_free (self->path);
  g_free (self->location);
  g_free (self);
}

void
gst_flux_caption_free_weights (GstFluxCaption *self)
{
  g_clear_pointer (&self->encoder, flux_text_encoder_free);
  g_clear_pointer (&self->backend, flux_backend_free);
}

guint
gst_flux_caption_n_computed (GstFluxCaption *self)
{
  return g_hash_table_size (self->rows);
}

gboolean
gst_flux_caption_is_first (GstFluxCaption *self, const gchar *key, const gchar *caption)
{
  const gchar *first = g_hash_table_lookup (self->seen, key);

  if (caption == NULL)
    return TRUE;
  if (first != NULL)
    return strcmp (first, caption) == 0;
  g_hash_table_insert (self->seen, g_strdup (key), g_strdup (caption));
  return TRUE;
}

static gboolean
load_weights (GstFluxCaption *self, GError **error)
{
  g_autoptr (FluxWeightsCache) cache = NULL;
  GError *failure = NULL;

  if (self->encoder != NULL)
    return TRUE;
  if (self->path == NULL && !open_remote (self, error))
    return FALSE;
  GST_INFO_OBJECT (self->element, "loading the text encoders of %s", self->text_model);
  cache = flux_weights_cache_new (self->weights_cache);
  gst_flux_hub_begin (self->hub, "open");
  self->backend =
      gst_flux_backend_new (self->element, self->device, self->compute, &failure);
  if (self->backend != NULL)
    self->encoder = flux_text_encoder_load (self->path, self->backend, self->qtype, cache,
        gst_flux_hub_progress, self->hub, &failure);
  gst_flux_hub_end (self->hub, "text encoders", failure);
  gst_flux_post_cache_warning (self->element, cache);
  if (self->encoder != NULL)
    return TRUE;
  gst_flux_caption_free_weights (self);
  g_propagate_error (error, failure);
  return FALSE;
}

static FluxEmbedding *
compute (GstFluxCaption *self, const gchar *caption, GError **error)
{
  gsize n_text;
  float *prompt_embeds, *pooled;
  FluxEmbedding *e;
  gboolean ok;

  if (!load_weights (self, error))
    return NULL;
  n_text = (gsize)self->length * self->info.joint_dim;
  prompt_embeds = g_new0 (float, n_text);
  pooled = g_new0 (float, self->info.pooled_dim);
  gst_flux_hub_begin (self->hub, "encode"); /* to be stopped: it never tells percent */
  ok = flux_text_encode (self->encoder, caption, self->length, prompt_embeds, pooled,
      gst_flux_hub_progress, self->hub, error);
  gst_flux_hub_end (self->hub, "caption", NULL);
  if (!ok) {
    g_free (prompt_embeds);
    g_free (pooled);
    return NULL;
  }
  e = g_new0 (FluxEmbedding, 1);
  e->prompt_embeds = g_bytes_new_take (prompt_embeds, n_text * sizeof (float));
  e->pooled = g_bytes_new_take (pooled, (gsize)self->info.pooled_dim * sizeof (float));
  e->text_tokens = self->length;
  e->joint_dim = self->info.joint_dim;
  e->pooled_dim = self->info.pooled_dim;
  return e;
}

/* A table whose rows have different lengths is read by nobody but us. */
static gboolean
check_length (GstFluxCaption *self, GError **error)
{
  if (self->row_length == 0 || self->row_length == self->length)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "The embedding table has rows of %d tokens, and a missing one would get %d: set "
      "max-sequence-length=%d, or name another table.",
      self->row_length, self->length, self->row_length);
  return FALSE;
}

static FluxEmbedding *
compute_row (GstFluxCaption *self, const gchar *key, const gchar *caption, GError **error)
{
  FluxEmbedding *row;

  if (caption == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "There is no caption to compute an embedding of: give the data set captions, "
        "or add the row %s to the table.",
        key);
    return NULL;
  }
  if (!check_length (self, error) ||
      (self->table != NULL && self->encoder == NULL &&
          !flux_file_check_writable (self->location, WHAT, error)))
    return NULL;
  row = compute (self, caption, error);
  if (row == NULL)
    return NULL;
  g_hash_table_insert (self->rows, g_strdup (key), row);
  if (self->table != NULL)
    flux_embedding_table_add (self->table, key, row);
  return row;
}

gboolean
gst_flux_caption_get (GstFluxCaption *self, const gchar *key, const gchar *caption,
    FluxEmbedding *e, GError **error)
{
  GError *failure = NULL;
  FluxEmbedding *row = g_hash_table_lookup (self->rows, key);

  memset (e, 0, sizeof *e);
  if (row == NULL && self->table != NULL) {
    if (flux_embedding_table_lookup (self->table, key, e, &failure)) {
      if (self->row_length == 0)
        self->row_length = e->text_tokens;
      return TRUE;
    }
    if (failure != NULL) {
      g_propagate_error (error, failure);
      return FALSE;
    }
  }
  if (row == NULL && self->text_model != NULL)
    row = compute_row (self, key, caption, error);
  if (row == NULL)
    return FALSE;
  embedding_copy (e, row);
  return TRUE;
}

gboolean
gst_flux_caption_save (GstFluxCaption *self, GError **error)
{
  if (self->table == NULL || flux_embedding_table_n_added (self->table) == 0)
    return TRUE;
  return flux_embedding_table_save (self->table, error);
}
