/* examples/report.c: pictures of a training run. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 *   flux-report curve LOG.jsonl OUT.png
 *     The loss of every step (as gst-flux --log writes it) and its running mean.
 *   flux-report sheet OUT.png CAPTIONS.txt LABEL IMAGE... -- LABEL IMAGE... [-- ...]
 *     A contact sheet: a row for each group, a column for each line of CAPTIONS.txt. */
#include <cairo.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define CURVE_WIDTH 900
#define CURVE_HEIGHT 480
#define MARGIN 60
#define CELL 192
#define CAPTION_HEIGHT 34
#define LABEL_WIDTH 110
#define GAP 8

static int
fail (const char *what, const char *path, const char *why)
{
  fprintf (stderr, "flux-report: %s '%s': %s\n", what, path, why);
  return 1;
}

static GArray *
read_losses (const char *path, GError **error)
{
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;
  g_autoptr (JsonParser) parser = json_parser_new ();
  GArray *losses;

  if (!g_file_get_contents (path, &text, NULL, error))
    return NULL;
  lines = g_strsplit (text, "\n", -1);
  losses = g_array_new (FALSE, FALSE, sizeof (double));
  for (guint i = 0; lines[i] != NULL; i++) {
    JsonNode *root;
    double loss;

    if (lines[i][0] == '\0' || !json_parser_load_from_data (parser, lines[i], -1, NULL))
      continue;
    root = json_parser_get_root (parser);
    if (!JSON_NODE_HOLDS_OBJECT (root) ||
        !json_object_has_member (json_node_get_object (root), "loss"))
      continue;
    loss = json_object_get_double_member (json_node_get_object (root), "loss");
    if (isfinite (loss))
      g_array_append_val (losses, loss);
  }
  return losses;
}

static void
text_at (cairo_t *cr, double x, double y, double align, const char *text)
{
  cairo_text_extents_t e;

  cairo_text_extents (cr, text, &e);
  cairo_move_to (cr, x - align * e.x_advance, y);
  cairo_show_text (cr, text);
}

static cairo_t *
canvas (int width, int height)
{
  cairo_surface_t *surface =
      cairo_image_surface_create (CAIRO_FORMAT_RGB24, width, height);
  cairo_t *cr = cairo_create (surface);

  cairo_surface_destroy (surface);
  cairo_set_source_rgb (cr, 1, 1, 1);
  cairo_paint (cr);
  cairo_select_font_face (
      cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size (cr, 13);
  return cr;
}

static int
finish (cairo_t *cr, const char *path)
{
  cairo_status_t status = cairo_surface_write_to_png (cairo_get_target (cr), path);

  cairo_destroy (cr);
  return status == CAIRO_STATUS_SUCCESS
             ? 0
             : fail ("cannot write", path, cairo_status_to_string (status));
}

static void
draw_axes (cairo_t *cr, double low, double high, guint n)
{
  const double x0 = MARGIN, x1 = CURVE_WIDTH - GAP * 3, y0 = CURVE_HEIGHT - MARGIN,
               y1 = MARGIN;
  char label[32];

  for (int i = 0; i <= 4; i++) {
    double y = y0 + (y1 - y0) * i / 4, x = x0 + (x1 - x0) * i / 4;

    cairo_set_source_rgb (cr, .88, .88, .88);
    cairo_move_to (cr, x0, y);
    cairo_line_to (cr, x1, y);
    cairo_stroke (cr);
    cairo_set_source_rgb (cr, .2, .2, .2);
    g_snprintf (label, sizeof label, "%.3f", low + (high - low) * i / 4);
    text_at (cr, x0 - GAP, y + 4, 1, label);
    g_snprintf (label, sizeof label, "%u", (guint)(n * i / 4));
    text_at (cr, x, y0 + 20, .5, label);
  }
  text_at (cr, (x0 + x1) / 2, CURVE_HEIGHT - 14, .5, "optimiser step");
  text_at (cr, x0, y1 - 20, 0,
      "training loss: each step, and the mean of the steps around it");
}

/* A centred mean over about a twentieth of the run. */
static double
running_mean (const GArray *losses, guint i)
{
  guint half = MAX (losses->len / 40, 1);
  guint first = i > half ? i - half : 0, last = MIN (i + half, losses->len - 1);
  double sum = 0;

  for (guint j = first; j <= last; j++)
    sum += g_array_index (losses, double, j);
  return sum / (last - first + 1);
}

static int
curve (const char *log, const char *out)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GArray) losses = read_losses (log, &error);
  double low = INFINITY, high = -INFINITY;
  const double x0 = MARGIN, x1 = CURVE_WIDTH - GAP * 3, y0 = CURVE_HEIGHT - MARGIN,
               y1 = MARGIN;
  cairo_t *cr;

  if (losses == NULL)
    return fail ("cannot read", log, error->message);
  if (losses->len == 0)
    return fail ("nothing to draw in", log, "it holds no line with a loss");
  for (guint i = 0; i < losses->len; i++) {
    low = MIN (low, g_array_index (losses, double, i));
    high = MAX (high, g_array_index (losses, double, i));
  }
  if (high <= low)
    high = low + 1;
  cr = canvas (CURVE_WIDTH, CURVE_HEIGHT);
  cairo_set_line_width (cr, 1);
  draw_axes (cr, low, high, losses->len);
  for (int mean = 0; mean <= 1; mean++) {
    cairo_new_path (cr);
    for (guint i = 0; i < losses->len; i++) {
      double v = mean ? running_mean (losses, i) : g_array_index (losses, double, i);
      double x = x0 + (x1 - x0) * (i + .5) / losses->len;

      cairo_line_to (cr, x, y0 + (y1 - y0) * (v - low) / (high - low));
    }
    cairo_set_source_rgb (cr, mean ? .8 : .7, mean ? .2 : .75, mean ? .1 : .85);
    cairo_set_line_width (cr, mean ? 2.5 : 1);
    cairo_stroke (cr);
  }
  return finish (cr, out);
}

static int
draw_cell (cairo_t *cr, const char *path, double x, double y)
{
  cairo_surface_t *image = cairo_image_surface_create_from_png (path);
  cairo_status_t status = cairo_surface_status (image);

  if (status == CAIRO_STATUS_SUCCESS) {
    int w = cairo_image_surface_get_width (image),
        h = cairo_image_surface_get_height (image);
    double scale = (double)CELL / MAX (w, h);

    cairo_save (cr);
    cairo_translate (cr, x + (CELL - w * scale) / 2, y + (CELL - h * scale) / 2);
    cairo_scale (cr, scale, scale);
    cairo_set_source_surface (cr, image, 0, 0);
    cairo_paint (cr);
    cairo_restore (cr);
  }
  cairo_surface_destroy (image);
  return status == CAIRO_STATUS_SUCCESS
             ? 0
             : fail ("cannot read", path, cairo_status_to_string (status));
}

static int
sheet (const char *out, const char *captions_path, char **words, int n_words)
{
  g_autofree char *text = NULL;
  g_auto (GStrv) captions = NULL;
  int rows = 1, columns = 0, row = 0, column = -1;
  cairo_t *cr;

  if (!g_file_get_contents (captions_path, &text, NULL, NULL))
    return fail ("cannot read", captions_path, "no such file, or not readable");
  captions = g_strsplit (g_strchomp (text), "\n", -1);
  columns = MAX ((int)g_strv_length (captions), 1);
  for (int i = 0; i < n_words; i++)
    rows += strcmp (words[i], "--") == 0;

  cr =
      canvas (LABEL_WIDTH + columns * (CELL + GAP), CAPTION_HEIGHT + rows * (CELL + GAP));
  cairo_set_source_rgb (cr, .15, .15, .15);
  for (int i = 0; captions[i] != NULL; i++)
    text_at (cr, LABEL_WIDTH + i * (CELL + GAP) + CELL / 2., 22, .5, captions[i]);
  for (int i = 0; i < n_words; i++) {
    double y = CAPTION_HEIGHT + row * (CELL + GAP);

    if (strcmp (words[i], "--") == 0) {
      row++;
      column = -1;
    } else if (column < 0) {
      cairo_set_source_rgb (cr, .15, .15, .15);
      text_at (cr, LABEL_WIDTH - GAP * 2, y + CELL / 2., 1, words[i]);
      column = 0;
    } else if (column < columns) {
      if (draw_cell (cr, words[i], LABEL_WIDTH + column * (CELL + GAP), y) != 0) {
        cairo_destroy (cr);
        return 1;
      }
      column++;
    }
  }
  return finish (cr, out);
}

int
main (int argc, char **argv)
{
  if (argc == 4 && strcmp (argv[1], "curve") == 0)
    return curve (argv[2], argv[3]);
  if (argc >= 6 && strcmp (argv[1], "sheet") == 0)
    return sheet (argv[2], argv[3], argv + 4, argc - 4);
  fprintf (stderr,
      "usage: flux-report curve LOG.jsonl OUT.png\n"
      "       flux-report sheet OUT.png CAPTIONS.txt LABEL IMAGE... [-- LABEL "
      "IMAGE...]\n");
  return 2;
}
