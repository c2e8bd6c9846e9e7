/* gstfluxtensor.c: the two tensor streams: caps, memories, the empty prompt.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxtensor.h"

#include "flux/error.h"

#define EMPTY_PROMPT "flux-empty-prompt"

gboolean
gst_flux_tensor_info_from_caps (GstFluxTensorInfo *info, const GstCaps *caps)
{
  const GstStructure *s = gst_caps_get_structure (caps, 0);
  const gchar *model = gst_structure_get_string (s, "model");

  memset (info, 0, sizeof *info);
  if (!gst_structure_get_int (s, "channels", &info->channels) ||
      !gst_structure_get_int (s, "width", &info->width) ||
      !gst_structure_get_int (s, "height", &info->height))
    return FALSE;
  if (gst_structure_has_name (s, "application/x-flux-sample") &&
      (!gst_structure_get_int (s, "text-length", &info->text_length) ||
          !gst_structure_get_int (s, "text-dim", &info->text_dim) ||
          !gst_structure_get_int (s, "pooled-dim", &info->pooled_dim)))
    return FALSE;
  if (model != NULL)
    g_strlcpy (info->model, model, sizeof info->model);
  return TRUE;
}

GstCaps *
gst_flux_tensor_info_to_caps (const GstFluxTensorInfo *info)
{
  const gchar *name =
      info->text_length > 0 ? "application/x-flux-sample" : "application/x-flux-latent";
  GstCaps *caps = gst_caps_new_simple (name, "format", G_TYPE_STRING, "F32LE", "content",
      G_TYPE_STRING, "moments", "channels", G_TYPE_INT, info->channels, "width",
      G_TYPE_INT, info->width, "height", G_TYPE_INT, info->height, "version", G_TYPE_INT,
      1, NULL);

  if (info->text_length > 0)
    gst_caps_set_simple (caps, "text-length", G_TYPE_INT, info->text_length, "text-dim",
        G_TYPE_INT, info->text_dim, "pooled-dim", G_TYPE_INT, info->pooled_dim, NULL);
  if (info->model[0] != '\0')
    gst_caps_set_simple (caps, "model", G_TYPE_STRING, info->model, NULL);
  return caps;
}

gsize
gst_flux_tensor_info_get_size (const GstFluxTensorInfo *info, guint i)
{
  switch (i) {
    case 0:
      return sizeof (float) * 2 * info->channels * info->width * info->height;
    case 1:
      return sizeof (float) * info->text_length * info->text_dim;
    case 2:
      return sizeof (float) * info->pooled_dim;
    default:
      return 0;
  }
}

GstMemory *
gst_flux_memory_new (GBytes *bytes)
{
  gsize size;
  gconstpointer data = g_bytes_get_data (bytes, &size);

  return gst_memory_new_wrapped (GST_MEMORY_FLAG_READONLY, (gpointer)data, size, 0, size,
      g_bytes_ref (bytes), (GDestroyNotify)g_bytes_unref);
}

typedef struct {
  GstMemory *memory;
  GstMapInfo map;
} MappedMemory;

static void
mapped_memory_free (gpointer data)
{
  MappedMemory *m = data;

  gst_memory_unmap (m->memory, &m->map);
  gst_memory_unref (m->memory);
  g_free (m);
}

/* NULL unless the buffer's memory i has `want` bytes and can be read. */
static GBytes *
get_bytes (GstBuffer *buffer, guint i, gsize want)
{
  MappedMemory *m;

  if (buffer == NULL || i >= gst_buffer_n_memory (buffer) ||
      gst_memory_get_sizes (gst_buffer_peek_memory (buffer, i), NULL, NULL) != want)
    return NULL;
  m = g_new0 (MappedMemory, 1);
  m->memory = gst_buffer_get_memory (buffer, i);
  if (!gst_memory_map (m->memory, &m->map, GST_MAP_READ)) {
    gst_memory_unref (m->memory);
    g_free (m);
    return NULL;
  }
  return g_bytes_new_with_free_func (m->map.data, m->map.size, mapped_memory_free, m);
}

GBytes *
gst_flux_buffer_get_bytes (
    GstBuffer *buffer, guint i, const GstFluxTensorInfo *info, GError **error)
{
  gsize want = gst_flux_tensor_info_get_size (info, i);
  GBytes *bytes = get_bytes (buffer, i, want);

  if (bytes == NULL)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "A buffer does not hold the tensors that its caps promise: memory %u should have "
        "%" G_GSIZE_FORMAT " readable bytes.",
        i, want);
  return bytes;
}

static GstBuffer *
buffer_new (GBytes *bytes)
{
  GstBuffer *buffer = gst_buffer_new ();

  gst_buffer_append_memory (buffer, gst_flux_memory_new (bytes));
  return buffer;
}

GstEvent *
gst_flux_empty_prompt_event_new (const FluxEmbedding *e)
{
  GstBuffer *prompt_embeds = buffer_new (e->prompt_embeds);
  GstBuffer *pooled = buffer_new (e->pooled);
  GstStructure *s = gst_structure_new (EMPTY_PROMPT, "text-length", G_TYPE_INT,
      e->text_tokens, "text-dim", G_TYPE_INT, e->joint_dim, "pooled-dim", G_TYPE_INT,
      e->pooled_dim, "prompt-embeds", GST_TYPE_BUFFER, prompt_embeds, "pooled",
      GST_TYPE_BUFFER, pooled, NULL);

  gst_buffer_unref (prompt_embeds);
  gst_buffer_unref (pooled);
  return gst_event_new_custom (GST_EVENT_CUSTOM_DOWNSTREAM_STICKY, s);
}

static GBytes *
get_field (const GstStructure *s, const gchar *field, gint rows, gint cols)
{
  const GValue *value = gst_structure_get_value (s, field);

  if (value == NULL || !G_VALUE_HOLDS (value, GST_TYPE_BUFFER) || rows < 1 || cols < 1)
    return NULL;
  return get_bytes (gst_value_get_buffer (value), 0, sizeof (float) * rows * cols);
}

gboolean
gst_flux_empty_prompt_event_parse (GstEvent *event, FluxEmbedding *e)
{
  const GstStructure *s;

  memset (e, 0, sizeof *e);
  if (GST_EVENT_TYPE (event) != GST_EVENT_CUSTOM_DOWNSTREAM_STICKY ||
      !gst_event_has_name (event, EMPTY_PROMPT))
    return FALSE;
  s = gst_event_get_structure (event);
  if (!gst_structure_get_int (s, "text-length", &e->text_tokens) ||
      !gst_structure_get_int (s, "text-dim", &e->joint_dim) ||
      !gst_structure_get_int (s, "pooled-dim", &e->pooled_dim))
    return FALSE;
  e->prompt_embeds = get_field (s, "prompt-embeds", e->text_tokens, e->joint_dim);
  e->pooled = get_field (s, "pooled", 1, e->pooled_dim);
  if (e->prompt_embeds != NULL && e->pooled != NULL)
    return TRUE;
  flux_embedding_clear (e);
  return FALSE;
}
