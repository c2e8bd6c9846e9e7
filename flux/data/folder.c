/* flux/data/folder.c: pictures that are files, captioned by metadata.jsonl or by files
 * beside them. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/data/dataset-private.h"

#include <string.h>

#include "flux/error.h"
#include "flux/files/json-cursor.h"

/* A place in metadata.jsonl. */
typedef struct {
  FluxDataset *self;
  const gchar *folder, *shown;
  guint line;
} Place;

static gboolean fail_at (const Place *at, GError **error, FluxError code,
    const gchar *format, ...) G_GNUC_PRINTF (4, 5);

static gboolean
fail_at (const Place *at, GError **error, FluxError code, const gchar *format, ...)
{
  va_list args;
  gchar *what;

  va_start (args, format);
  what = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, FLUX_ERROR, code, "'%s', line %u: %s", at->shown, at->line, what);
  g_free (what);
  return FALSE;
}

static void
leave_out (FluxDataset *self, const gchar *path)
{
  if (self->n_other++ == 0)
    self->first_other = g_filename_display_name (path);
}

/* What is of use in a line. */
typedef struct {
  gchar *file_name, *caption;
  GString *columns; /* the names, for the message */
} Line;

static void
line_clear (Line *line)
{
  g_free (line->file_name);
  g_free (line->caption);
  g_string_free (line->columns, TRUE);
}

/* The value of a member that is text or null. */
static gboolean
read_text (FluxJsonCursor *c, gchar **text)
{
  if (*text != NULL)
    return flux_json_fail (c, "a name comes twice");
  if (flux_json_peek (c) == 'n') /* null, or a fault that skip finds */
    return flux_json_skip (c);
  *text = flux_json_read_string (c);
  return *text != NULL;
}

static gboolean
parse_line (const Place *at, const gchar *text, gsize length, Line *line, GError **error)
{
  FluxJsonCursor c;
  gboolean first = TRUE;
  gchar *name = NULL;

  flux_json_cursor_init (&c, text, length);
  if (c.fault != NULL)
    return fail_at (at, error, FLUX_ERROR_FORMAT,
        "the text is not UTF-8: save the file as UTF-8 (it may be Latin-1 now).");
  flux_json_open (&c, '{');
  while (flux_json_next_member (&c, &first, &name)) {
    g_string_append_printf (line->columns, "%s%s", line->columns->len ? ", " : "", name);
    if (strcmp (name, "file_name") == 0)
      read_text (&c, &line->file_name);
    if (strcmp (name, at->self->caption_column) == 0) {
      if (strcmp (name, "file_name") == 0)
        line->caption = g_strdup (line->file_name);
      else
        read_text (&c, &line->caption);
    } else if (strcmp (name, "file_name") != 0) {
      flux_json_skip (&c);
    }
    g_clear_pointer (&name, g_free);
  }
  if (!flux_json_finish (&c))
    return fail_at (at, error, FLUX_ERROR_FORMAT,
        "not a JSON object with text in \"file_name\" and \"%s\": %s (at character %u).",
        at->self->caption_column, c.fault, (guint)(c.p - c.start) + 1);
  if (line->file_name == NULL)
    return fail_at (at, error, FLUX_ERROR_FORMAT,
        "there is no \"file_name\", only %s: name a picture or remove the line.",
        line->columns->len ? line->columns->str : "an empty object");
  return TRUE;
}

static gboolean
add_line (const Place *at, Line *line, GError **error)
{
  FluxDataset *self = at->self;
  FluxDatasetRow row;

  if (!flux_dataset_is_inside (line->file_name))
    return fail_at (at, error, FLUX_ERROR_FORMAT,
        "\"%s\" leads out of the data set's folder: use a path inside it.",
        line->file_name);
  row.path = g_build_filename (at->folder, line->file_name, NULL);
  if (flux_dataset_format_of_name (row.path) == FLUX_IMAGE_FORMAT_OTHER) {
    leave_out (self, row.path);
    g_free (row.path);
    return TRUE;
  }
  if (!g_file_test (row.path, G_FILE_TEST_IS_REGULAR)) {
    fail_at (at, error, FLUX_ERROR_NOT_FOUND,
        "the picture '%s' is missing: add it or remove the line.", row.path);
    g_free (row.path);
    return FALSE;
  }
  row.caption = flux_dataset_take_caption (self, g_steal_pointer (&line->caption));
  if (row.caption == NULL || strlen (row.caption) > FLUX_DATASET_MAX_CAPTION) {
    if (row.caption != NULL)
      fail_at (at, error, FLUX_ERROR_FORMAT, "the caption of '%s' is over %d bytes long.",
          row.path, FLUX_DATASET_MAX_CAPTION);
    else
      fail_at (at, error, FLUX_ERROR_FORMAT,
          "the picture '%s' has no caption in \"%s\" (the line has %s): set "
          "caption-column or instance-prompt.",
          row.path, self->caption_column, line->columns->str);
    g_free (row.path);
    g_free (row.caption);
    return FALSE;
  }
  g_array_append_val (self->rows, row);
  return TRUE;
}

static gboolean
add_text_line (const Place *at, const gchar *text, gsize length, GError **error)
{
  Line line = {0};
  gboolean ok;

  while (length > 0 && g_ascii_isspace (text[length - 1]))
    length--;
  if (length == 0)
    return TRUE;
  if (length > FLUX_DATASET_MAX_LINE)
    return fail_at (at, error, FLUX_ERROR_FORMAT,
        "the line is over %d bytes long: one JSON object a line is expected.",
        FLUX_DATASET_MAX_LINE);
  if (at->self->rows->len >= FLUX_DATASET_MAX_SAMPLES)
    return fail_at (at, error, FLUX_ERROR_FORMAT, "there are too many lines.");
  line.columns = g_string_new (NULL);
  ok = parse_line (at, text, length, &line, error) && add_line (at, &line, error);
  line_clear (&line);
  return ok;
}

gboolean
flux_dataset_add_metadata (
    FluxDataset *self, const gchar *folder, const gchar *path, GError **error)
{
  GBytes *bytes = flux_dataset_read_file (path, G_MAXINT32, error);
  Place at = {.self = self, .folder = folder};
  const gchar *text, *end;
  gsize size;
  gchar *shown;
  gboolean ok = TRUE;

  if (bytes == NULL)
    return FALSE;
  at.shown = shown = g_filename_display_name (path);
  text = g_bytes_get_data (bytes, &size);
  end = text + size;
  if (size >= 3 && memcmp (text, "\xef\xbb\xbf", 3) == 0) /* Windows editors' mark */
    text += 3;
  while (text < end && ok) {
    const gchar *stop = memchr (text, '\n', end - text);

    if (stop == NULL)
      stop = end;
    at.line++;
    ok = add_text_line (&at, text, stop - text, error);
    text = stop + 1;
  }
  g_free (shown);
  g_bytes_unref (bytes);
  return ok;
}

/* The caption in a file beside the picture: NULL without an error when it is not there.
 */
static gchar *
read_sidecar (const gchar *path, GError **error)
{
  GBytes *bytes;
  const gchar *text;
  gsize size;
  gchar *caption;

  if (!g_file_test (path, G_FILE_TEST_EXISTS))
    return NULL;
  bytes = flux_dataset_read_file (path, FLUX_DATASET_MAX_CAPTION, error);
  if (bytes == NULL)
    return NULL;
  text = g_bytes_get_data (bytes, &size);
  if (size >= 3 && memcmp (text, "\xef\xbb\xbf", 3) == 0) {
    text += 3;
    size -= 3;
  }
  if (!g_utf8_validate_len (text, size, NULL)) {
    gchar *shown = g_filename_display_name (path);

    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "The caption '%s' is not UTF-8: save it as UTF-8 (it may be Latin-1 now).",
        shown);
    g_free (shown);
    g_bytes_unref (bytes);
    return NULL;
  }
  caption = g_strndup (text, size);
  g_bytes_unref (bytes);
  g_strdelimit (g_strstrip (caption), "\r\n", ' ');
  return caption;
}

static gboolean
add_picture (FluxDataset *self, const gchar *folder, const gchar *name, GError **error)
{
  static const gchar *const ends[] = {"txt", "caption"};
  FluxDatasetRow row = {.path = g_build_filename (folder, name, NULL)};
  GError *local = NULL;
  gsize stem = strrchr (row.path, '.') - row.path;

  for (guint i = 0; i < G_N_ELEMENTS (ends) && row.caption == NULL && local == NULL;
       i++) {
    gchar *path = g_strdup_printf ("%.*s.%s", (int)stem, row.path, ends[i]);

    row.caption = read_sidecar (path, &local);
    g_free (path);
  }
  row.caption = flux_dataset_take_caption (self, row.caption);
  if (local == NULL && row.caption == NULL) {
    gchar *shown = g_filename_display_name (row.path);

    g_set_error (&local, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "The picture '%s' has no caption: write it to a .txt file of the same name, or "
        "set instance-prompt.",
        shown);
    g_free (shown);
  }
  if (local != NULL) {
    g_propagate_error (error, local);
    g_free (row.path);
    g_free (row.caption);
    return FALSE;
  }
  g_array_append_val (self->rows, row);
  return TRUE;
}

gboolean
flux_dataset_add_pictures (
    FluxDataset *self, const gchar *folder, GPtrArray *names, GError **error)
{
  for (guint i = 0; i < names->len; i++) {
    const gchar *name = names->pdata[i];
    FluxImageFormat format = flux_dataset_format_of_name (name);
    gboolean ok = TRUE;

    if (format == FLUX_IMAGE_FORMAT_OTHER)
      leave_out (self, name);
    else if (format != FLUX_IMAGE_FORMAT_UNKNOWN)
      ok = add_picture (self, folder, name, error);
    if (!ok)
      return FALSE;
  }
  return TRUE;
}

gboolean
flux_dataset_read_row (
    FluxDataset *self, guint index, FluxDatasetSample *sample, GError **error)
{
  const FluxDatasetRow *row = &g_array_index (self->rows, FluxDatasetRow, index);
  gsize size;
  const guint8 *data;

  sample->bytes = flux_dataset_read_file (row->path, FLUX_DATASET_MAX_PICTURE, error);
  if (sample->bytes == NULL)
    return FALSE;
  data = g_bytes_get_data (sample->bytes, &size);
  sample->format = flux_image_sniff (data, size);
  if (sample->format == FLUX_IMAGE_FORMAT_UNKNOWN)
    sample->format = flux_dataset_format_of_name (row->path);
  if (sample->format == FLUX_IMAGE_FORMAT_UNKNOWN)
    sample->format = FLUX_IMAGE_FORMAT_PNG;
  sample->name = g_filename_display_name (row->path);
  sample->caption = g_strdup (row->caption);
  return TRUE;
}
