from .alignment_chart import alignment_figure as alignment_figure
from .benchmark_page import write_benchmark_report as write_benchmark_report
from .comparison_page import write_report as write_report
from .search_page import write_search_page as write_search_page
