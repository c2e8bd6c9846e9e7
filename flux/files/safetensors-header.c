/* flux/files/safetensors-header.c: one file's header, checked before it is believed.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The rules are those of the reference reader (huggingface/safetensors,
 * safetensors/src/tensor.rs): header at most 100 MB, data indexed without holes or
 * overlaps to the last byte, names unique. */
#include <string.h>
#include <sys/stat.h>

#include "flux/error.h"
#include "flux/files/json-cursor.h"
#include "flux/files/map-file.h"
#include "flux/files/safetensors-private.h"

const fx_dtype flux_safetensors_dtypes[FX_N_DTYPES] = {FX_I64, FX_F64, FX_F32, FX_I32,
    FX_BF16, FX_F16, FX_U16, FX_I16, FX_E4M3, FX_E5M2, FX_I8, FX_U8, FX_BOOL};

/* What a tensor's entry may have said so far. */
enum { SEEN_DTYPE = 1, SEEN_SHAPE = 2, SEEN_OFFSETS = 4, SEEN_ALL = 7 };

typedef struct {
  const char *path;
  const char *data; /* the data section */
  gsize length;
  FluxJsonCursor json;
  GHashTable *names;
  GError **error;
} Parse;

G_GNUC_PRINTF (2, 3)
static gboolean
bad (Parse *p, const char *format, ...)
{
  va_list args;
  g_autofree char *what = NULL;

  va_start (args, format);
  what = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (p->error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is not a valid safetensors file: %s.", p->path, what);
  return FALSE;
}

static gboolean
bad_json (Parse *p)
{
  return bad (p, "at byte %" G_GSIZE_FORMAT " of its header, %s",
      (gsize)(p->json.p - p->json.start), p->json.fault);
}

static gboolean
cut_short (GError **error, const char *path, gsize have, guint64 need)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is cut short: it has %" G_GSIZE_FORMAT " bytes and needs %" G_GUINT64_FORMAT
      " or more; fetch or write it again.",
      path, have, need);
  return FALSE;
}

static gboolean
read_dtype (Parse *p, FluxTensor *t)
{
  g_autofree char *spelt = flux_json_read_string (&p->json);

  if (spelt == NULL)
    return bad_json (p);
  for (guint i = 0; i < FX_N_DTYPES; i++) {
    if (strcmp (spelt, fx_dtype_name (flux_safetensors_dtypes[i])) == 0) {
      t->dtype = flux_safetensors_dtypes[i];
      return TRUE;
    }
  }
  return bad (p, "tensor '%s' has the unknown type '%s'", t->name, spelt);
}

static gboolean
read_shape (Parse *p, FluxTensor *t)
{
  gboolean first = TRUE;
  guint64 dim;

  if (!flux_json_open (&p->json, '['))
    return bad_json (p);
  while (flux_json_next_element (&p->json, &first)) {
    if (!flux_json_read_size (&p->json, &dim))
      break;
    if (t->n_dims == FLUX_TENSOR_MAX_DIMS)
      return bad (
          p, "tensor '%s' has more than %d dimensions", t->name, FLUX_TENSOR_MAX_DIMS);
    t->dims[t->n_dims++] = dim;
  }
  return p->json.fault == NULL ? TRUE : bad_json (p);
}

static gboolean
read_offsets (Parse *p, guint64 offsets[2])
{
  gboolean first = TRUE;
  guint n = 0;

  if (!flux_json_open (&p->json, '['))
    return bad_json (p);
  while (flux_json_next_element (&p->json, &first)) {
    if (n == 2)
      flux_json_fail (&p->json, "data_offsets has more than two numbers");
    else if (flux_json_read_size (&p->json, &offsets[n]))
      n++;
  }
  if (n < 2)
    flux_json_fail (&p->json, "data_offsets has fewer than two numbers");
  return p->json.fault == NULL ? TRUE : bad_json (p);
}

/* Sets n_elements, n_bytes and data from the entry; data may still end past the file. */
static gboolean
check_tensor (Parse *p, FluxTensor *t, const guint64 offsets[2])
{
  gsize n = 1, bytes;
  gboolean fits = TRUE;

  for (guint i = 0; i < t->n_dims; i++)
    fits = fits && g_size_checked_mul (&n, n, (gsize)t->dims[i]);
  fits = fits && g_size_checked_mul (&bytes, n, fx_dtype_size (t->dtype));
  if (!fits)
    return bad (p, "the shape of tensor '%s' is too large", t->name);
  if (offsets[0] > offsets[1] || offsets[1] - offsets[0] != bytes)
    return bad (p,
        "tensor '%s' needs %" G_GSIZE_FORMAT " bytes by its type and shape, but its "
        "offsets are %" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT,
        t->name, bytes, offsets[0], offsets[1]);
  t->n_elements = n;
  t->n_bytes = bytes;
  /* An offset for now: a pointer is made of it once it is known to lie in the file. */
  t->data = GSIZE_TO_POINTER (offsets[0]);
  return TRUE;
}

static gboolean
read_tensor (Parse *p, FluxTensor *t)
{
  gboolean first = TRUE, ok = TRUE;
  guint64 offsets[2] = {0, 0};
  guint seen = 0;
  char *key;

  if (!flux_json_open (&p->json, '{'))
    return bad_json (p);
  while (ok && flux_json_next_member (&p->json, &first, &key)) {
    guint what = strcmp (key, "dtype") == 0          ? SEEN_DTYPE
                 : strcmp (key, "shape") == 0        ? SEEN_SHAPE
                 : strcmp (key, "data_offsets") == 0 ? SEEN_OFFSETS
                                                     : 0;

    if (seen & what)
      ok = bad (p, "tensor '%s' says '%s' twice", t->name, key);
    else if (what == SEEN_DTYPE)
      ok = read_dtype (p, t);
    else if (what == SEEN_SHAPE)
      ok = read_shape (p, t);
    else if (what == SEEN_OFFSETS)
      ok = read_offsets (p, offsets);
    else if (!flux_json_skip (&p->json))
      ok = bad_json (p);
    seen |= what;
    g_free (key);
  }
  if (!ok)
    return FALSE;
  if (p->json.fault != NULL)
    return bad_json (p);
  if (seen != SEEN_ALL)
    return bad (p, "tensor '%s' lacks its dtype, shape or data_offsets", t->name);
  return check_tensor (p, t, offsets);
}

static gboolean
read_metadata (Parse *p, GHashTable *metadata)
{
  gboolean first = TRUE;
  char *key, *value;

  if (!flux_json_open (&p->json, '{'))
    return bad_json (p);
  while (flux_json_next_member (&p->json, &first, &key)) {
    if (g_hash_table_contains (metadata, key)) {
      bad (p, "its metadata says '%s' twice", key);
      g_free (key);
      return FALSE;
    }
    value = flux_json_read_string (&p->json);
    if (value == NULL) {
      g_free (key);
      return bad_json (p);
    }
    g_hash_table_insert (metadata, key, value);
  }
  return p->json.fault == NULL ? TRUE : bad_json (p);
}

static gboolean
read_entries (Parse *p, FluxSafetensorsFile *self)
{
  gboolean first = TRUE, ok = TRUE;
  char *name;

  if (!flux_json_open (&p->json, '{'))
    return bad_json (p);
  while (ok && flux_json_next_member (&p->json, &first, &name)) {
    if (!g_hash_table_add (p->names, g_strdup (name))) {
      ok = bad (p, "it has two entries of the name '%s'", name);
      g_free (name);
    } else if (strcmp (name, "__metadata__") == 0) {
      g_free (name);
      ok = read_metadata (p, self->metadata);
    } else {
      FluxTensor t = {.name = name};

      ok = read_tensor (p, &t);
      g_array_append_val (self->tensors, t);
    }
  }
  if (ok && !flux_json_finish (&p->json))
    ok = bad_json (p);
  return ok;
}

static int
compare_offsets (gconstpointer a, gconstpointer b)
{
  const FluxTensor *x = a, *y = b;
  gsize i = GPOINTER_TO_SIZE (x->data), j = GPOINTER_TO_SIZE (y->data);

  if (i != j)
    return i < j ? -1 : 1;
  /* An empty tensor comes before the one that starts at the same place. */
  if (x->n_bytes != y->n_bytes)
    return x->n_bytes < y->n_bytes ? -1 : 1;
  return strcmp (x->name, y->name);
}

/* Sorts, and turns offsets into pointers. */
static gboolean
place_tensors (Parse *p, FluxSafetensorsFile *self, gsize data_start)
{
  gsize end = 0;

  g_array_sort (self->tensors, compare_offsets);
  for (guint i = 0; i < self->tensors->len; i++) {
    FluxTensor *t = &g_array_index (self->tensors, FluxTensor, i);
    gsize offset = GPOINTER_TO_SIZE (t->data);

    if (offset != end)
      return bad (p,
          offset < end ? "tensor '%s' overlaps another" : "there is a hole before '%s'",
          t->name);
    /* No overflow: the end was read as at most G_MAXINT64. */
    end += t->n_bytes;
  }
  if (end > p->length)
    return cut_short (p->error, p->path, data_start + p->length, data_start + end);
  if (end < p->length)
    return bad (p, "%" G_GSIZE_FORMAT " bytes follow its last tensor", p->length - end);
  for (guint i = 0; i < self->tensors->len; i++) {
    FluxTensor *t = &g_array_index (self->tensors, FluxTensor, i);

    t->data = p->data + GPOINTER_TO_SIZE (t->data);
  }
  return TRUE;
}

gboolean
flux_safetensors_parse (FluxSafetensorsFile *self, const char *path, const char *bytes,
    gsize length, GError **error)
{
  Parse p = {.path = path, .error = error};
  guint64 header;
  gboolean ok;

  if (flux_is_lfs_pointer (bytes, length))
    return bad (&p, "it is a Git LFS pointer; run 'git lfs pull' to get the file itself");
  if (length < sizeof header)
    return cut_short (error, path, length, sizeof header + 2);
  memcpy (&header, bytes, sizeof header);
  header = GUINT64_FROM_LE (header);
  if (header > FLUX_SAFETENSORS_MAX_HEADER)
    return bad (&p, "its header would be longer than 100 MB");
  if (length > sizeof header && bytes[sizeof header] != '{')
    return bad (&p, "its header does not start with '{'");
  if (header > length - sizeof header)
    return cut_short (error, path, length, sizeof header + header);

  p.data = bytes + sizeof header + header;
  p.length = length - sizeof header - header;
  p.names = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  flux_json_cursor_init (&p.json, bytes + sizeof header, header);
  ok = read_entries (&p, self) && place_tensors (&p, self, sizeof header + header);
  g_hash_table_unref (p.names);
  return ok;
}

static void
clear_tensor (gpointer t)
{
  g_free ((char *)((FluxTensor *)t)->name);
}

FluxSafetensorsFile *
flux_safetensors_file_open (const char *path, GError **error)
{
  g_autoptr (FluxSafetensorsFile) self = g_new0 (FluxSafetensorsFile, 1);
  struct stat st;

  self->tensors = g_array_new (FALSE, FALSE, sizeof (FluxTensor));
  g_array_set_clear_func (self->tensors, clear_tensor);
  self->metadata = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  if (stat (path, &st) == 0) {
    self->size = st.st_size;
    self->mtime = st.st_mtim.tv_sec * G_GINT64_CONSTANT (1000000000) + st.st_mtim.tv_nsec;
  }
  self->mapping = flux_map_file (path, error);
  if (self->mapping == NULL ||
      !flux_safetensors_parse (self, path, g_mapped_file_get_contents (self->mapping),
          g_mapped_file_get_length (self->mapping), error))
    return NULL;
  return g_steal_pointer (&self);
}

void
flux_safetensors_file_free (FluxSafetensorsFile *self)
{
  g_clear_pointer (&self->tensors, g_array_unref);
  g_clear_pointer (&self->metadata, g_hash_table_unref);
  g_clear_pointer (&self->mapping, g_mapped_file_unref);
  g_free (self);
}
